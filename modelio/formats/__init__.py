"""One file a format; none imports another. The registry pulls each one's FORMAT record."""
