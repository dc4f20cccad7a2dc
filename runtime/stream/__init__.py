"""From frames to rows: capture threads, mailboxes, the encode loop, and its statistics."""
