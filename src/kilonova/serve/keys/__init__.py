"""Keys: who may use the server, and how a request proves whose it is."""
