"""Training of joint-embedding encoders (needs the extra ``train``)."""
