"""ROS 2 nodes: bridge, policy, excite, monitor, recorder, and the bring-up that starts them."""
