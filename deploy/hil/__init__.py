"""Hardware in the loop without hardware: the board's real firmware behind a pty, with the robot in Bullet behind it."""
