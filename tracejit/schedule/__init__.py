"""Graph → schedule: which ops share a kernel, in which order kernels run, and where values live."""
