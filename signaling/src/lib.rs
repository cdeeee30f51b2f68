//! How bindings come and go.
