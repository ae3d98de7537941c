"""Two installs side by side: what an upgrade of libraries does to pictures, speed and memory."""
