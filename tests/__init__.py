"""The test suite; tests import only tests.testbed from each other."""
