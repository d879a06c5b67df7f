/* The firmware on standard input and output, for fuzzing under sanitizers: every byte read is one that came over the
   wire, each pass of the loop takes 100 us. Aborts if the output ever leaves the limits; at the end it prints how many
   CRC errors, framing errors, refused frames and passes with a command in effect there were. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "firmware.h"
#include ROBOT_HEADER

enum { PASS_US = 100 };

static uint32_t clock_us;

static uint32_t time_us(void *board) {
    (void)board;
    return clock_us += PASS_US;
}

static size_t receive(void *board, uint8_t *bytes, size_t size) {
    (void)board;
    return fread(bytes, 1, size, stdin);
}

static void transmit(void *board, const uint8_t *bytes, size_t size) {
    (void)board;
    fwrite(bytes, 1, size, stdout);
}

static bool measure(void *board, float *position, float *velocity) {
    (void)board;
    for (uint8_t i = 0; i < lb_robot.joints; i++) {
        position[i] = velocity[i] = 0.0f;
    }
    return true;
}

static void actuate(void *board, bool torque, const float *command) {
    (void)board;
    uint8_t n = 0;
    for (uint8_t i = 0; i < lb_robot.joints; i++) {
        const lb_joint_t *joint = &lb_robot.joint[i];
        if (!joint->actuated) {
            continue;
        }
        const float limit = lb_robot.mode == LB_EFFORT ? joint->effort_limit : joint->velocity_limit;
        const float low = lb_robot.mode == LB_POSITION ? joint->lower : -limit;
        const float high = lb_robot.mode == LB_POSITION ? joint->upper : limit;
        if (!torque ? command[n] != 0.0f : !(command[n] >= low && command[n] <= high)) {
            abort();
        }
        n++;
    }
}

int main(void) {
    const lb_hal_t hal = {NULL, time_us, receive, transmit, measure, actuate};
    static lb_firmware_t fw;
    unsigned running = 0;
    lb_init(&fw, &hal, &lb_robot);
    while (!feof(stdin)) {
        lb_poll(&fw);
        running += fw.state == LB_RUNNING;
    }
    fprintf(stderr, "%u %u %u %u\n", fw.receiver.crc_errors, fw.receiver.framing_errors, fw.refused, running);
    return 0;
}
