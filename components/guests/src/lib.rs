//! Nothing: each guest is an example of this package, and a file of its own in `examples/`.
