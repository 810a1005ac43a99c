"""A recorded run in the same screens: its journal, its blobs and its trials' files are read, no engine is asked."""
