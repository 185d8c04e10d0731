"""Published measurements: rows read into setups, predictions of them, and how right those are."""
