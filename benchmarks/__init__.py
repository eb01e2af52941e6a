"""The network as published, and how much faster the package's is. Not part of the installed package."""
