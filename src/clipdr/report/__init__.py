"""Tables and pictures from evaluation records and measured networks. Nothing here imports torch or trains anything."""
