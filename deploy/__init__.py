"""The robot side: runtime, guard, supervisor, hardware. Imports neither torch nor mujoco."""
