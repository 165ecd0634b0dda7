"""Do score and effective rank together tell sets apart as well as the better of the two? See PROTOCOL.md."""
