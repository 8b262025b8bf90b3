"""What is wrong with a configuration's real queues, streams and destinations, and what will come of it: facts are
gathered by calls that change nothing (gather.py and what it uses), then judged without any (checks.py)."""
