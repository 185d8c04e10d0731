/*
 * SHA-256 by the SHA extensions of x86 (Intel 64 and IA-32 manual, volume 2: SHA256RNDS2,
 * SHA256MSG1, SHA256MSG2). Compiled everywhere, used where the processor says that it has them.
 */
#include "plan/em_sha256.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>

#define EXTENDED __attribute__((target("sha,sse4.1,ssse3")))

bool em_sha256_has_extension(void)
{
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSSE3) == 0 || (c & bit_SSE4_1) == 0) {
        return false;
    }
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> 29 & 1) != 0;
}

/* Four rounds: two halves of the state, and four words with their constants added. */
EXTENDED static inline void four_rounds(__m128i *abef, __m128i *cdgh, __m128i words)
{
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, words);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(words, 0x0e));
}

EXTENDED static inline __m128i with_constants(__m128i words, size_t round)
{
    return _mm_add_epi32(words, _mm_loadu_si128((const __m128i *)(em_sha256_k + round)));
}

/* Words t..t+3 of the message schedule from the sixteen before, four in each of w0 w1 w2 w3. */
EXTENDED static inline __m128i schedule(__m128i w0, __m128i w1, __m128i w2, __m128i w3)
{
    const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
    return _mm_sha256msg2_epu32(sum, w3);
}

EXTENDED void em_sha256_extended(uint32_t state[8], const uint8_t *blocks, size_t num)
{
    const __m128i big_endian =
        _mm_set_epi64x((int64_t)0x0c0d0e0f08090a0b, (int64_t)0x0405060700010203);
    /* The instructions want the state as (a b e f) and (c d g h), highest word first. */
    const __m128i cdab =
        _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)state), 0xb1);
    const __m128i efgh =
        _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (size_t i = 0; i < num; i++) {
        const __m128i *const block = (const __m128i *)(const void *)(blocks + 64 * i);
        const __m128i abef_before = abef;
        const __m128i cdgh_before = cdgh;
        __m128i w0 = _mm_shuffle_epi8(_mm_loadu_si128(block), big_endian);
        __m128i w1 = _mm_shuffle_epi8(_mm_loadu_si128(block + 1), big_endian);
        __m128i w2 = _mm_shuffle_epi8(_mm_loadu_si128(block + 2), big_endian);
        __m128i w3 = _mm_shuffle_epi8(_mm_loadu_si128(block + 3), big_endian);
        for (size_t round = 0;; round += 16) {
            four_rounds(&abef, &cdgh, with_constants(w0, round));
            four_rounds(&abef, &cdgh, with_constants(w1, round + 4));
            four_rounds(&abef, &cdgh, with_constants(w2, round + 8));
            four_rounds(&abef, &cdgh, with_constants(w3, round + 12));
            if (round == 48) {
                break;
            }
            w0 = schedule(w0, w1, w2, w3);
            w1 = schedule(w1, w2, w3, w0);
            w2 = schedule(w2, w3, w0, w1);
            w3 = schedule(w3, w0, w1, w2);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
    const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#else

bool em_sha256_has_extension(void)
{
    return false;
}

void em_sha256_extended(uint32_t state[8], const uint8_t *blocks, size_t num)
{
    (void)state;
    (void)blocks;
    (void)num;
}

#endif
