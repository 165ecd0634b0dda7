"""What is measured, on the record: races against PyTorch, whole jobs, stores, memory; what compilers make of it."""
