"""The dataflow graph: immutable nodes, their text form, the verifier, and the passes."""
