"""The messages and stubs of spec/tellwire.proto, as ``make proto`` writes them; they need the extra tellwire[grpc]."""
