/* The firmware as a shared library: what `landbridge hil emulate` loads. */
#include <math.h>

#include "firmware.h"
#include ROBOT_HEADER

size_t lb_size(void) {
    return sizeof(lb_firmware_t);
}

void lb_start(lb_firmware_t *fw, const lb_hal_t *hal) {
    lb_init(fw, hal, &lb_robot);
}
