"""MLPerf's LoadGen as a referee of our own figures."""
