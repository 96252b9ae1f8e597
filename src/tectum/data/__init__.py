"""Reading pairs, finding them in data sets, checking them, and making synthetic ones. Nothing here imports torch."""
