/* The board's end of the link: a state machine with a watchdog behind a hardware abstraction of five functions.
   No allocation, no libc but memcpy and memset, no clock but the one handed in. */
#ifndef LANDBRIDGE_FIRMWARE_H
#define LANDBRIDGE_FIRMWARE_H

#include "frame.h"

typedef struct {
    const char *name; /* at most LB_NAME_SIZE bytes */
    bool actuated;
    float lower, upper; /* rad; infinite for a continuous joint */
    float velocity_limit; /* rad/s */
    float effort_limit; /* N m */
    float damping; /* N m s/rad, gain of the stop of an effort-commanded joint */
} lb_joint_t;

typedef struct {
    const char *name;
    uint8_t mode; /* LB_POSITION, LB_VELOCITY or LB_EFFORT */
    uint8_t joints; /* 1 to LB_MAX_JOINTS */
    const lb_joint_t *joint;
} lb_robot_t;

/* What a board must be able to do. `board` is handed back to each function. */
typedef struct {
    void *board;
    uint32_t (*time_us)(void *board); /* free-running, wraps */
    size_t (*receive)(void *board, uint8_t *bytes, size_t size); /* what has come, at most `size`; never waits */
    void (*send)(void *board, const uint8_t *bytes, size_t size); /* all or nothing; never waits */
    bool (*measure)(void *board, float *position, float *velocity); /* all joints, rad and rad/s */
    void (*actuate)(void *board, bool torque, const float *command); /* actuated joints, in the table's order */
} lb_hal_t;

typedef struct {
    const lb_hal_t *hal;
    const lb_robot_t *robot;
    lb_receiver_t receiver;
    uint8_t state;
    bool torque;
    uint16_t faults, refused, limited, taken, sent; /* taken, sent: sequence numbers */
    uint32_t session, watchdog_us, telemetry_us;
    uint32_t now, commanded_at, reported_at, command_us;
    uint8_t actuated;
    float command[LB_MAX_JOINTS], hold[LB_MAX_JOINTS];
    float position[LB_MAX_JOINTS], velocity[LB_MAX_JOINTS];
} lb_firmware_t;

void lb_init(lb_firmware_t *fw, const lb_hal_t *hal, const lb_robot_t *robot);

/* One pass of the main loop: receive, measure, judge, actuate, report. Call it at 1 kHz or more. */
void lb_poll(lb_firmware_t *fw);

#endif
