"""The conformance kit, tried on drivers that are right, wrong in one way each, and no plugins."""
