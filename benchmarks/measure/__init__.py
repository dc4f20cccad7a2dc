"""How it is measured: interleaved rounds, samples, the machine and its rates."""
