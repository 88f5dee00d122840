"""PURE. The structs every floor speaks in: request, identity, policy, decision, record."""
