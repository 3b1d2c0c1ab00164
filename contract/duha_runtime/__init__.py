"""Run-time parts that edge and backend share: supervision and waiting. No domain."""
