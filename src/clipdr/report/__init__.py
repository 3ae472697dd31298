"""Tables and pictures from evaluation records. Nothing here imports torch or trains anything."""
