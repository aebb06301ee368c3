"""What a configuration does otherwise than another one, in sentences: `sluiceway diff`."""
