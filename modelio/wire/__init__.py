"""Encodings that know nothing of models: windows of bytes, protobuf messages, TensorBundle, HDF5, npz, checksums."""
