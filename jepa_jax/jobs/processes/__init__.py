"""The processes of one job, which parts each computes, and which GPUs."""
