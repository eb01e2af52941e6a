"""What knows nothing of solder joints: errors, the command line, files, text, processes, documents.

It may import the standard library and third parties only.
"""
