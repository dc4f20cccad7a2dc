"""Print the latents that `motorvae-stream --output zmq://:5556` publishes, up to its end row."""

import json
import sys

import numpy as np
import zmq

address = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5556"
with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
    subscriber.subscribe(b"")  # all; for one camera subscribe to its name, and to b"end"
    subscriber.connect(address)
    while True:
        topic, header, raw = subscriber.recv_multipart()
        facts = json.loads(header)
        mu = np.frombuffer(raw, facts["dtype"]).reshape(facts["shape"])
        print(topic.decode(), facts["index"], facts["status"], mu[:4], flush=True)
        if facts["status"] == "end":
            break
