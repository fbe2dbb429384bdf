"""What TensorFlow runs: ops, reachability, editing, building. Pure: no files, no layers."""
