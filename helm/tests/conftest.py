"""Makes the modules of this folder known to the tests of the folders below."""
