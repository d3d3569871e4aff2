"""Does a fleet hold under load? Requests one by one, through the queues, batches and caches of its replicas."""
