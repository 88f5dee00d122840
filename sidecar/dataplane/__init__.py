"""Bytes in, bytes out. Five nouns:

- `Listener` owns the sockets, the client connections and the sweep that enforces timeouts.
- `ClientConnection` parses requests and answers them in order.
- `Exchange` is one request and its response; read it to see what happens to a request.
- `Plane` is what all exchanges of this worker share, and `Lane` how those of one decision travel.
- `Mirror` sends copies to shadow versions; a `Book` counts what becomes of them, and a `Trial` is a
  pair of answers to be compared.
"""
