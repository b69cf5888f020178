"""Memory of a session: prediction, measurement and figures."""
