/* Frames: COBS, CRC-32, and a receiver that never trusts a length. */
#ifndef LANDBRIDGE_FRAME_H
#define LANDBRIDGE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

enum { LB_FRAMING_ERROR = -1, LB_CRC_ERROR = -2 };

typedef struct {
    uint8_t coded[LB_CODED_MAX];
    size_t length; /* bytes since the last delimiter, those that did not fit included */
    uint8_t frame[LB_FRAME_MAX];
    uint16_t crc_errors, framing_errors;
} lb_receiver_t;

/* CRC-32 of zlib: reflected 0xEDB88320, initial value and final inversion 0xFFFFFFFF. */
uint32_t lb_crc32(const uint8_t *bytes, size_t size);

/* Append the CRC to `size` <= LB_FRAME_MAX - LB_CRC_SIZE bytes of `frame` and code them between two delimiters.
   `frame` has room for the CRC, `coded` for LB_CODED_MAX + 2 bytes. Returns the coded size. */
size_t lb_encode(uint8_t *frame, size_t size, uint8_t *coded);

/* Size of header and payload of a coded frame without its delimiter, or a negative error. */
int lb_decode(const uint8_t *coded, size_t size, uint8_t *frame);

/* Take one byte. Returns the size of the frame that it completes, else 0. */
size_t lb_receive_byte(lb_receiver_t *receiver, uint8_t byte);

uint16_t lb_get_u16(const uint8_t *at);
uint32_t lb_get_u32(const uint8_t *at);
float lb_get_f32(const uint8_t *at);
void lb_put_u16(uint8_t *at, uint16_t value);
void lb_put_u32(uint8_t *at, uint32_t value);
void lb_put_f32(uint8_t *at, float value);

#endif
