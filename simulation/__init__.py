"""Plants (MuJoCo source, Bullet twin), the severity ladder, behaviour collection."""
