"""gRPC: the service of spec/tellwire.proto, on a port of its own; loaded only where it is asked for."""
