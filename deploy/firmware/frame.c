#include "frame.h"

#include <string.h>

uint32_t lb_crc32(const uint8_t *bytes, size_t size) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return crc ^ 0xFFFFFFFFu;
}

size_t lb_encode(uint8_t *frame, size_t size, uint8_t *coded) {
    lb_put_u32(frame + size, lb_crc32(frame, size));
    size += LB_CRC_SIZE;
    size_t code_at = 1, out = 2;
    coded[0] = 0;
    for (size_t i = 0; i < size; i++) {
        if (frame[i] == 0) {
            coded[code_at] = (uint8_t)(out - code_at);
            code_at = out++;
        } else {
            coded[out++] = frame[i];
        }
    }
    coded[code_at] = (uint8_t)(out - code_at); /* at most 0xFF: frames are no longer than 254 bytes */
    coded[out++] = 0;
    return out;
}

static int cobs_decode(const uint8_t *coded, size_t size, uint8_t *frame) {
    size_t in = 0, out = 0;
    while (in < size) {
        const size_t code = coded[in++];
        if (code == 0 || code - 1 > size - in) {
            return LB_FRAMING_ERROR;
        }
        for (size_t i = 1; i < code; i++) {
            if (coded[in] == 0) {
                return LB_FRAMING_ERROR;
            }
            frame[out++] = coded[in++];
        }
        if (code < 0xFF && in < size) {
            frame[out++] = 0;
        }
    }
    return (int)out;
}

int lb_decode(const uint8_t *coded, size_t size, uint8_t *frame) {
    if (size > LB_CODED_MAX) {
        return LB_FRAMING_ERROR;
    }
    const int length = cobs_decode(coded, size, frame);
    if (length < LB_HEADER_SIZE + LB_CRC_SIZE) {
        return LB_FRAMING_ERROR;
    }
    const size_t body = (size_t)length - LB_CRC_SIZE;
    return lb_crc32(frame, body) == lb_get_u32(frame + body) ? (int)body : LB_CRC_ERROR;
}

size_t lb_receive_byte(lb_receiver_t *receiver, uint8_t byte) {
    if (byte != 0) {
        if (receiver->length < LB_CODED_MAX) {
            receiver->coded[receiver->length] = byte;
        }
        if (receiver->length <= LB_CODED_MAX) {
            receiver->length++;
        }
        return 0;
    }
    const size_t length = receiver->length;
    receiver->length = 0;
    if (length == 0) {
        return 0;
    }
    const int body = lb_decode(receiver->coded, length, receiver->frame);
    if (body > 0) {
        return (size_t)body;
    }
    if (body == LB_CRC_ERROR) {
        receiver->crc_errors++;
    } else {
        receiver->framing_errors++;
    }
    return 0;
}

uint16_t lb_get_u16(const uint8_t *at) {
    return (uint16_t)(at[0] | (uint16_t)(at[1] << 8));
}

uint32_t lb_get_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

float lb_get_f32(const uint8_t *at) {
    const uint32_t bits = lb_get_u32(at);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void lb_put_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void lb_put_u32(uint8_t *at, uint32_t value) {
    lb_put_u16(at, (uint16_t)value);
    lb_put_u16(at + 2, (uint16_t)(value >> 16));
}

void lb_put_f32(uint8_t *at, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    lb_put_u32(at, bits);
}
