"""Where does the score estimate log p itself, and can one tell without the truth? See PROTOCOL.md."""
