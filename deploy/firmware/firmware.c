#include "firmware.h"

#include <math.h>
#include <string.h>

enum { RECEIVED_PER_PASS = 512 }; /* bytes: a line that never falls silent holds up neither watchdog nor stop */

/* By its bits: comparisons with NaN are false, and compilers may assume that there is none. */
static bool is_finite(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

static float clamp(float value, float low, float high) {
    return value < low ? low : (value > high ? high : value);
}

static float limited(const lb_robot_t *robot, const lb_joint_t *joint, float value) {
    if (robot->mode == LB_POSITION) {
        return clamp(value, joint->lower, joint->upper);
    }
    const float limit = robot->mode == LB_EFFORT ? joint->effort_limit : joint->velocity_limit;
    return clamp(value, -limit, limit);
}

void lb_init(lb_firmware_t *fw, const lb_hal_t *hal, const lb_robot_t *robot) {
    memset(fw, 0, sizeof *fw);
    fw->hal = hal;
    fw->robot = robot;
    for (uint8_t i = 0; i < robot->joints; i++) {
        fw->actuated += robot->joint[i].actuated;
        fw->position[i] = NAN; /* nothing may move before it has been measured */
    }
}

/* --- sending --------------------------------------------------------------------------------------------------- */

static void put_name(uint8_t *at, const char *name) {
    for (size_t i = 0; i < LB_NAME_SIZE && name[i] != 0; i++) {
        at[i] = (uint8_t)name[i];
    }
}

/* `frame` holds the payload behind room for the header. */
static void send(lb_firmware_t *fw, uint8_t kind, uint8_t *frame, size_t size) {
    uint8_t coded[LB_CODED_MAX + 2];
    frame[LB_HEADER_VERSION] = LB_VERSION;
    frame[LB_HEADER_KIND] = kind;
    lb_put_u16(frame + LB_HEADER_SEQUENCE, ++fw->sent);
    lb_put_u32(frame + LB_HEADER_SESSION, fw->session);
    lb_put_u32(frame + LB_HEADER_TIME_US, fw->now);
    fw->hal->send(fw->hal->board, coded, lb_encode(frame, size, coded));
}

static void send_table(lb_firmware_t *fw) {
    const lb_robot_t *robot = fw->robot;
    uint8_t frame[LB_FRAME_MAX] = {0};
    frame[LB_DEVICE_JOINTS] = robot->joints;
    frame[LB_DEVICE_MODE] = robot->mode;
    put_name(frame + LB_DEVICE_ROBOT, robot->name);
    send(fw, LB_DEVICE, frame, LB_DEVICE_SIZE);
    for (uint8_t i = 0; i < robot->joints; i++) {
        const lb_joint_t *joint = &robot->joint[i];
        memset(frame, 0, sizeof frame);
        frame[LB_JOINT_INDEX] = i;
        frame[LB_JOINT_ACTUATED] = joint->actuated;
        put_name(frame + LB_JOINT_NAME, joint->name);
        lb_put_f32(frame + LB_JOINT_LOWER, joint->lower);
        lb_put_f32(frame + LB_JOINT_UPPER, joint->upper);
        lb_put_f32(frame + LB_JOINT_VELOCITY_LIMIT, joint->velocity_limit);
        lb_put_f32(frame + LB_JOINT_EFFORT_LIMIT, joint->effort_limit);
        send(fw, LB_JOINT, frame, LB_JOINT_SIZE);
    }
}

static void report(lb_firmware_t *fw) {
    if (fw->state == LB_IDLE || fw->now - fw->reported_at < fw->telemetry_us) {
        return;
    }
    fw->reported_at += fw->telemetry_us; /* no drift, and no burst after a pause */
    if (fw->now - fw->reported_at >= fw->telemetry_us) {
        fw->reported_at = fw->now;
    }
    uint8_t frame[LB_FRAME_MAX] = {0};
    frame[LB_TELEMETRY_STATE] = fw->state;
    frame[LB_TELEMETRY_TORQUE] = fw->torque;
    lb_put_u16(frame + LB_TELEMETRY_FAULTS, fw->faults);
    lb_put_u16(frame + LB_TELEMETRY_ANSWERED, fw->taken);
    lb_put_u16(frame + LB_TELEMETRY_CRC_ERRORS, fw->receiver.crc_errors);
    lb_put_u16(frame + LB_TELEMETRY_FRAMING_ERRORS, fw->receiver.framing_errors);
    lb_put_u16(frame + LB_TELEMETRY_REFUSED, fw->refused);
    lb_put_u16(frame + LB_TELEMETRY_LIMITED, fw->limited);
    lb_put_u32(frame + LB_TELEMETRY_COMMAND_US, fw->command_us);
    uint8_t *at = frame + LB_TELEMETRY_SIZE;
    for (uint8_t i = 0; i < fw->robot->joints; i++, at += 4) {
        lb_put_f32(at, fw->position[i]);
    }
    for (uint8_t i = 0; i < fw->robot->joints; i++, at += 4) {
        lb_put_f32(at, fw->velocity[i]);
    }
    send(fw, LB_TELEMETRY, frame, (size_t)(at - frame));
}

/* --- state machine --------------------------------------------------------------------------------------------- */

static void latch(lb_firmware_t *fw, uint16_t fault) {
    fw->faults |= fault;
    fw->state = LB_STOPPED;
}

static bool start(lb_firmware_t *fw, const uint8_t *frame, size_t size) {
    if (size != LB_START_SIZE) {
        return false;
    }
    const uint32_t watchdog_us = lb_get_u32(frame + LB_START_WATCHDOG_US);
    const uint32_t telemetry_us = lb_get_u32(frame + LB_START_TELEMETRY_US);
    if (watchdog_us == 0 || watchdog_us > LB_WATCHDOG_MAX_MS * 1000u || telemetry_us == 0 || telemetry_us > watchdog_us) {
        return false;
    }
    fw->watchdog_us = watchdog_us;
    fw->telemetry_us = telemetry_us;
    fw->reported_at = fw->now - telemetry_us;
    fw->faults = 0;
    fw->state = LB_READY;
    return true;
}

static bool command(lb_firmware_t *fw, const uint8_t *frame, size_t size) {
    if (size != LB_COMMAND_SIZE + 4u * fw->actuated || fw->state == LB_IDLE
        || fw->now - lb_get_u32(frame + LB_COMMAND_ANSWERS_US) > fw->watchdog_us) {
        return false;
    }
    if (fw->state == LB_STOPPED) {
        return true; /* heard, and without effect until the next START */
    }
    const uint8_t *at = frame + LB_COMMAND_SIZE;
    float wanted[LB_MAX_JOINTS];
    bool changed = false;
    uint8_t n = 0;
    for (uint8_t i = 0; i < fw->robot->joints; i++) {
        if (!is_finite(fw->position[i])) {
            latch(fw, LB_FAULT_SENSOR);
            return false;
        }
        if (!fw->robot->joint[i].actuated) {
            continue;
        }
        const float value = lb_get_f32(at + 4u * n);
        if (!is_finite(value)) {
            latch(fw, LB_FAULT_NOT_FINITE);
            return false;
        }
        wanted[n] = limited(fw->robot, &fw->robot->joint[i], value);
        changed = changed || wanted[n] != value;
        n++;
    }
    memcpy(fw->command, wanted, n * sizeof wanted[0]);
    fw->limited += changed;
    fw->commanded_at = fw->now;
    fw->command_us = lb_get_u32(frame + LB_HEADER_TIME_US);
    fw->state = LB_RUNNING;
    fw->torque = true;
    return true;
}

static bool disable(lb_firmware_t *fw, size_t size) {
    if (size != LB_DISABLE_SIZE || fw->state == LB_IDLE) {
        return false;
    }
    fw->torque = false;
    if (fw->state == LB_RUNNING) {
        fw->state = LB_READY;
    }
    return true;
}

static bool stop(lb_firmware_t *fw, size_t size) {
    if (size != LB_STOP_SIZE || fw->state == LB_IDLE) {
        return false;
    }
    latch(fw, LB_FAULT_HOST);
    return true;
}

/* Whether the frame was admissible. Within a session only a newer one is: copies and stragglers change nothing. */
static bool take(lb_firmware_t *fw, const uint8_t *frame, size_t size) {
    const uint8_t kind = frame[LB_HEADER_KIND];
    const uint32_t session = lb_get_u32(frame + LB_HEADER_SESSION);
    const uint16_t sequence = lb_get_u16(frame + LB_HEADER_SEQUENCE);
    const bool newer = session == fw->session && (uint16_t)(sequence - fw->taken - 1u) < 0x8000u;
    if (kind == LB_HELLO && session != 0 && (session != fw->session || newer)) {
        fw->session = session; /* whatever version it is: the answer tells ours */
        fw->taken = sequence;
        fw->state = LB_IDLE;
        send_table(fw);
        return true;
    }
    if (frame[LB_HEADER_VERSION] != LB_VERSION || session == 0 || !newer) {
        return false;
    }
    const bool taken = kind == LB_START ? start(fw, frame, size)
        : kind == LB_COMMAND ? command(fw, frame, size)
        : kind == LB_DISABLE ? disable(fw, size)
        : kind == LB_STOP ? stop(fw, size)
        : false;
    if (taken) {
        fw->taken = sequence;
    }
    return taken;
}

static void receive(lb_firmware_t *fw) {
    uint8_t bytes[64];
    size_t count, left = RECEIVED_PER_PASS;
    while (left >= sizeof bytes && (count = fw->hal->receive(fw->hal->board, bytes, sizeof bytes)) > 0) {
        left -= count;
        for (size_t i = 0; i < count; i++) {
            const size_t size = lb_receive_byte(&fw->receiver, bytes[i]);
            if (size > 0 && !take(fw, fw->receiver.frame, size)) {
                fw->refused++;
            }
        }
    }
}

static void measure(lb_firmware_t *fw) {
    bool sane = fw->hal->measure(fw->hal->board, fw->position, fw->velocity);
    for (uint8_t i = 0; i < fw->robot->joints; i++) {
        sane = sane && is_finite(fw->position[i]) && is_finite(fw->velocity[i]);
    }
    if (!sane) {
        for (uint8_t i = 0; i < fw->robot->joints; i++) {
            fw->position[i] = fw->velocity[i] = NAN;
        }
    }
    if (sane && !fw->torque) {
        memcpy(fw->hold, fw->position, sizeof fw->hold);
    }
    if (fw->state != LB_RUNNING) {
        return;
    }
    if (!sane) {
        latch(fw, LB_FAULT_SENSOR);
        return;
    }
    for (uint8_t i = 0; i < fw->robot->joints; i++) {
        const lb_joint_t *joint = &fw->robot->joint[i];
        if (fw->velocity[i] > joint->velocity_limit || fw->velocity[i] < -joint->velocity_limit) {
            latch(fw, LB_FAULT_VELOCITY_LIMIT);
        }
        const bool holds = fw->robot->mode == LB_POSITION && joint->actuated; /* one that sags is no fault */
        if (!holds && (fw->position[i] < joint->lower || fw->position[i] > joint->upper)) {
            latch(fw, LB_FAULT_POSITION_LIMIT);
        }
    }
    if (fw->state == LB_RUNNING) {
        memcpy(fw->hold, fw->position, sizeof fw->hold); /* a stop keeps the last place that was in order */
    }
}

/* Damp (effort), come to rest (velocity), or hold where the stop began (position). */
static float stopping(const lb_firmware_t *fw, uint8_t i) {
    const lb_joint_t *joint = &fw->robot->joint[i];
    if (fw->robot->mode == LB_POSITION) {
        return limited(fw->robot, joint, fw->hold[i]);
    }
    if (fw->robot->mode == LB_VELOCITY || !is_finite(fw->velocity[i])) {
        return 0.0f;
    }
    return limited(fw->robot, joint, -joint->damping * fw->velocity[i]);
}

static void actuate(lb_firmware_t *fw) {
    float output[LB_MAX_JOINTS] = {0};
    uint8_t n = 0;
    for (uint8_t i = 0; fw->torque && i < fw->robot->joints; i++) {
        if (fw->robot->joint[i].actuated) {
            output[n] = fw->state == LB_RUNNING ? fw->command[n] : stopping(fw, i);
            n++;
        }
    }
    fw->hal->actuate(fw->hal->board, fw->torque, output);
}

void lb_poll(lb_firmware_t *fw) {
    fw->now = fw->hal->time_us(fw->hal->board);
    receive(fw);
    measure(fw);
    if (fw->state == LB_RUNNING && fw->now - fw->commanded_at > fw->watchdog_us) {
        latch(fw, LB_FAULT_WATCHDOG);
    }
    actuate(fw);
    report(fw);
}
