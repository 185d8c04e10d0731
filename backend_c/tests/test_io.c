/* Files that others wrote: JSON, safetensors and token files, valid, broken and mutated. */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/em_arena.h"
#include "common/em_rng.h"
#include "io/em_file.h"
#include "io/em_json.h"
#include "io/em_safetensors.h"
#include "io/em_tokens.h"

static em_status_t parse(const char *text, em_json_t *json)
{
    em_error_t err;
    memset(&err, 0, sizeof err);
    const em_status_t status = em_json_parse(json, text, strlen(text), "text", &err);
    assert((status == EM_OK) == (err.status == EM_OK));
    return status;
}

static void test_json_values(void)
{
    static const char text[] = "{\"a\": [1, {\"b\": [true, null, -1.5e2]}], \"c\\u00e9\\n\": "
                               "\"x\\\"y\\ud83d\\ude00\", \"d\": {}}";
    em_json_t json;
    char name[16];
    uint64_t number = 0;
    double real = 0.0;
    assert(parse(text, &json) == EM_OK);
    const em_json_value_t *const root = &json.values[0];
    assert(root->kind == EM_JSON_OBJECT && root->num_children == 3);
    const em_json_value_t *const a = em_json_get(&json, root, "a");
    assert(a != NULL && a->kind == EM_JSON_ARRAY && a->num_children == 2);
    assert(em_json_u64(&json, em_json_first(&json, a), &number) && number == 1);
    const em_json_value_t *const b =
        em_json_get(&json, em_json_next(&json, em_json_first(&json, a)), "b");
    const em_json_value_t *const yes = em_json_first(&json, b);
    assert(yes->kind == EM_JSON_BOOL && yes->value);
    const em_json_value_t *const last = em_json_next(&json, em_json_next(&json, yes));
    assert(em_json_double(&json, last, &real) && real == -150.0);
    assert(!em_json_u64(&json, last, &number));
    const em_json_value_t *const c = em_json_next(&json, a);
    assert(em_json_key(&json, c, name, sizeof name) && strcmp(name, "c\xc3\xa9\n") == 0);
    assert(em_json_string(&json, c, name, sizeof name) &&
           strcmp(name, "x\"y\xf0\x9f\x98\x80") == 0);
    assert(!em_json_string(&json, c, name, 4));
    assert(em_json_get(&json, root, "e") == NULL && em_json_get(&json, NULL, "e") == NULL);
    em_json_free(&json);
}

static void test_json_refusals(void)
{
    static const char *const wrong[] = {"",
                                        " ",
                                        "{",
                                        "}",
                                        "[1,]",
                                        "[1 2]",
                                        "{\"a\" 1}",
                                        "{a: 1}",
                                        "{\"a\":}",
                                        "{,}",
                                        "[,]",
                                        "01",
                                        "1.",
                                        ".5",
                                        "+1",
                                        "1e",
                                        "tru",
                                        "nul",
                                        "\"\\x\"",
                                        "\"\n\"",
                                        "\"\\u12g4\"",
                                        "\"",
                                        "\"\\",
                                        "[1]]",
                                        "1 1",
                                        "{\"a\":1",
                                        "[\"\xff\"]",
                                        "[\"\xc0\x80\"]",
                                        "[\"\xed\xa0\x80\"]",
                                        "--1",
                                        "[1}",
                                        "{\"a\":1]"};
    em_json_t json;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert(parse(wrong[i], &json) == EM_ERR_SYNTAX);
    }
    char deep[EM_JSON_DEPTH + 2];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    assert(parse(deep, &json) == EM_ERR_LIMIT);
}

/* ---- safetensors -------------------------------------------------------------------------- */

enum { FILE_ROOM = 4096 };

static uint64_t make_file(uint8_t *bytes, const char *header, uint64_t data_bytes)
{
    const uint64_t num = strlen(header);
    memset(bytes, 0, FILE_ROOM);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(num >> (8 * i));
    }
    memcpy(bytes + 8, header, (size_t)num);
    assert(8 + num + data_bytes <= FILE_ROOM);
    return 8 + num + data_bytes;
}

static em_status_t open_header(const char *header, uint64_t data_bytes)
{
    static uint8_t bytes[FILE_ROOM];
    em_safetensors_t file;
    em_error_t err;
    memset(&err, 0, sizeof err);
    const uint64_t num = make_file(bytes, header, data_bytes);
    const em_status_t status = em_safetensors_parse(&file, bytes, num, "file", &err);
    if (status == EM_OK) {
        em_safetensors_close(&file);
    }
    return status;
}

#define T(name, dtype, shape, from, to)                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]" \
    "}"

static void test_safetensors_refusals(void)
{
    assert(open_header("{}", 0) == EM_OK);
    assert(open_header("{" T("a", "F32", "[2]", "0", "8") "}  ", 8) == EM_OK);
    assert(open_header("{" T("a", "F32", "[]", "0", "4") "}", 4) == EM_OK);
    assert(open_header("{" T("b", "I64", "[0,9]", "0", "0") "}", 0) == EM_OK);
    assert(open_header("{\"__metadata__\":{\"k\":\"v\"}}", 0) == EM_OK);
    static const struct {
        const char *header;
        uint64_t data_bytes;
    } wrong[] = {
        {"[]", 0},
        {" {}", 0},
        {"{" T("a", "F32", "[2]", "0", "8") "}", 9},   /* bytes that no tensor takes */
        {"{" T("a", "F32", "[2]", "0", "8") "}", 7},   /* beyond the end */
        {"{" T("a", "F32", "[2]", "4", "12") "}", 12}, /* a hole in front */
        {"{" T("a", "F32", "[2]", "8", "0") "}", 8},
        {"{" T("a", "F32", "[3]", "0", "8") "}", 8},
        {"{" T("a", "F33", "[2]", "0", "8") "}", 8},
        {"{" T("a", "F32", "[-2]", "0", "8") "}", 8},
        {"{" T("a", "F32", "[1.0]", "0", "4") "}", 4},
        {"{" T("a", "F32", "2", "0", "8") "}", 8},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4},
        {"{" T("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0},
        {"{" T("a", "F64", "[9223372036854775807]", "0", "8") "}", 8},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "2", "6") "}", 6},
        {"{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "4", "8") "}", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4},
        {"{\"a\":1}", 0},
        {"{\"__metadata__\":[]}", 0},
        {"{\"__metadata__\":{\"a\":1}}", 0},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert(open_header(wrong[i].header, wrong[i].data_bytes) != EM_OK);
    }
    uint8_t bytes[FILE_ROOM];
    em_safetensors_t file;
    em_error_t err;
    memset(&err, 0, sizeof err);
    uint64_t num = make_file(bytes, "{}", 0);
    assert(em_safetensors_parse(&file, bytes, 7, "short", &err) != EM_OK);
    bytes[0] = 3; /* a header that reaches beyond the file */
    assert(em_safetensors_parse(&file, bytes, num, "long", NULL) == EM_ERR_LIMIT);
    memset(bytes, 0xff, 8);
    assert(em_safetensors_parse(&file, bytes, num, "huge", NULL) == EM_ERR_LIMIT);
}

/* Any bytes give a verdict: no crash, no leak, no read beyond the end (the sanitizers watch). */
static void test_safetensors_mutations(void)
{
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"}," T(
        "a", "F32", "[2,3]", "0", "24") "," T("b.weight", "BF16", "[4]", "24", "32") "}";
    uint8_t bytes[FILE_ROOM];
    uint32_t accepted = 0;
    for (uint64_t round = 0; round < 20000; round++) {
        const uint64_t num = make_file(bytes, header, 32);
        const uint64_t edits = 1 + em_rng_below(1, round, 3);
        for (uint64_t e = 0; e < edits; e++) {
            const uint64_t at = em_rng_below(2, 4 * round + e, num);
            if (em_rng_below(3, 4 * round + e, 2) == 0) {
                bytes[at] = (uint8_t)(bytes[at] ^ (1u << em_rng_below(4, 4 * round + e, 8)));
            } else {
                static const char likely[] = " {}[]\",:0123456789\\u";
                bytes[at] = (uint8_t)likely[em_rng_below(5, round, sizeof likely)];
            }
        }
        const uint64_t cut = em_rng_below(6, round, 4) == 0 ? em_rng_below(7, round, num) : num;
        uint8_t *const exact = malloc(cut == 0 ? 1 : (size_t)cut); /* a red zone right behind */
        assert(exact != NULL);
        memcpy(exact, bytes, (size_t)cut);
        em_safetensors_t file;
        em_error_t err;
        memset(&err, 0, sizeof err);
        if (em_safetensors_parse(&file, exact, cut, "mutant", &err) == EM_OK) {
            accepted++;
            for (uint32_t i = 0; i < file.num_tensors; i++) {
                float out[8];
                const em_tensor_t *const tensor = &file.tensors[i];
                assert(tensor->data + (tensor->end - tensor->begin) <= exact + cut);
                if (tensor->num_elements <= 8) {
                    (void)em_tensor_read(&file, tensor, tensor->num_dims, tensor->shape, out, NULL);
                }
            }
            em_safetensors_close(&file);
        } else {
            assert(err.status != EM_OK && err.text[0] != '\0');
        }
        free(exact);
    }
    assert(accepted > 100 && accepted < 19000);
}

static void test_safetensors_round_trip(const char *folder)
{
    char path[EM_PATH_BYTES];
    const float values[] = {1.0f, -2.5f, 3e-38f, 1e38f, 0.0f, -0.0f};
    const em_tensor_out_t tensors[] = {
        {.name = "b", .num_dims = 2, .shape = {2, 2}, .num_elements = 4, .data = values},
        {.name = "a", .num_dims = 1, .shape = {2, 1}, .num_elements = 2, .data = values + 4}};
    static const char *const metadata[][2] = {{"format", "pt"}};
    em_error_t err;
    memset(&err, 0, sizeof err);
    assert(em_path_join(path, folder, "t.safetensors", &err) == EM_OK);
    assert(em_safetensors_write(path, tensors, 2, metadata, 1, &err) == EM_OK);
    em_safetensors_t file;
    assert(em_safetensors_open(&file, path, &err) == EM_OK && file.num_tensors == 2);
    char format[8];
    assert(em_safetensors_metadata(&file, "format", format, sizeof format) &&
           strcmp(format, "pt") == 0);
    float out[4];
    const em_tensor_t *const b = em_safetensors_find(&file, "b");
    assert(b != NULL && em_safetensors_find(&file, "c") == NULL);
    assert(em_tensor_read(&file, b, 2, tensors[0].shape, out, &err) == EM_OK);
    assert(memcmp(out, values, sizeof out) == 0);
    const uint64_t other[] = {4, 1};
    assert(em_tensor_read(&file, b, 2, other, out, NULL) == EM_ERR_DATA);
    assert(em_tensor_read(&file, b, 1, other, out, NULL) == EM_ERR_DATA);
    em_safetensors_close(&file);
}

/* Half floats of both kinds, exactly. */
static void test_half_floats(void)
{
    static const uint16_t f16[] = {0x3C00, 0xC000, 0x0001, 0x03FF, 0x7C00, 0x7E00, 0x8000, 0x7BFF};
    static const float wanted[] = {1.0f,      -2.0f, 0x1p-24f, 1023 * 0x1p-24f,
                                   HUGE_VALF, NAN,   -0.0f,    65504.0f};
    uint8_t bytes[FILE_ROOM];
    em_safetensors_t file;
    const uint64_t num = make_file(
        bytes, "{" T("h", "F16", "[8]", "0", "16") "," T("b", "BF16", "[1]", "16", "18") "}", 18);
    memcpy(bytes + num - 18, f16, sizeof f16);
    bytes[num - 2] = 0x80;
    bytes[num - 1] = 0xBF; /* bf16 -1.0 */
    assert(em_safetensors_parse(&file, bytes, num, "half", NULL) == EM_OK);
    float out[8], one = 0.0f;
    const uint64_t eight = 8, single = 1;
    assert(em_tensor_read(&file, em_safetensors_find(&file, "h"), 1, &eight, out, NULL) == EM_OK);
    for (int i = 0; i < 8; i++) {
        assert(isnan(wanted[i]) ? isnan(out[i]) : memcmp(&out[i], &wanted[i], sizeof out[i]) == 0);
    }
    assert(em_tensor_read(&file, em_safetensors_find(&file, "b"), 1, &single, &one, NULL) == EM_OK);
    assert(one == -1.0f);
    em_safetensors_close(&file);
}

/* ---- folders and samples ----------------------------------------------------------------------
 */

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[EM_PATH_BYTES];
    assert(em_path_join(path, folder, name, NULL) == EM_OK);
    FILE *const out = fopen(path, "w");
    assert(out != NULL && fputs(text, out) >= 0);
    assert(em_file_finish(out, path, NULL) == EM_OK);
}

/* A folder is there as a whole: first, in the place of an older one, or not at all. */
static void test_folders(const char *root)
{
    char path[EM_PATH_BYTES], temporary[EM_PATH_BYTES], file[EM_PATH_BYTES];
    assert(em_path_join(path, root, "out", NULL) == EM_OK);
    static const char *const names[] = {"own"};
    for (int round = 0; round < 2; round++) {
        assert(em_folder_check(path, names, 1, NULL) == EM_OK);
        assert(em_folder_begin(path, temporary, NULL) == EM_OK);
        write_text(temporary, "own", round == 0 ? "old" : "newer");
        assert(em_folder_commit(temporary, path, NULL) == EM_OK);
        assert(access(temporary, F_OK) != 0);
    }
    em_mapped_t map;
    assert(em_path_join(file, path, "own", NULL) == EM_OK);
    assert(em_mapped_open(&map, file, NULL) == EM_OK && map.num_bytes == strlen("newer"));
    em_mapped_close(&map);
    /* what another put there is refused beforehand, and outlives a replacement */
    write_text(path, "foreign", "text");
    assert(em_folder_check(path, names, 1, NULL) == EM_ERR_IO);
    assert(em_folder_begin(path, temporary, NULL) == EM_OK);
    write_text(temporary, "own", "newest");
    assert(em_folder_commit(temporary, path, NULL) == EM_OK);
    assert(em_path_join(file, temporary, "own", NULL) == EM_OK && access(file, F_OK) != 0);
    assert(em_path_join(file, temporary, "foreign", NULL) == EM_OK && access(file, F_OK) == 0);
    em_folder_discard(temporary);
    assert(em_folder_begin(path, temporary, NULL) == EM_OK);
    write_text(temporary, "half", "text");
    em_folder_discard(temporary);
    assert(access(temporary, F_OK) != 0 && access(path, F_OK) == 0);
    em_folder_discard(path);
}

/* A permutation in each epoch; what a window holds. */
static void test_samples(void)
{
    uint8_t seen[300];
    for (uint64_t num = 1; num <= 300; num += 23) {
        memset(seen, 0, sizeof seen);
        for (uint64_t g = 2 * num; g < 3 * num; g++) {
            const uint64_t window = em_sample_window(num, 42, g);
            assert(window < num && seen[window]++ == 0);
        }
    }
    const uint8_t data[] = {1, 0, 2, 0, 3, 0, 4, 0, 5, 0};
    const em_tokens_t tokens = {.data = data, .token_bytes = 2, .vocab = 9, .num_tokens = 5};
    int32_t inputs[2], targets[2];
    assert(em_tokens_num_windows(&tokens, 2) == 2);
    em_tokens_read(&tokens, 1, 2, inputs, targets);
    assert(inputs[0] == 3 && inputs[1] == 4 && targets[0] == 4 && targets[1] == 5);
}

int main(void)
{
    char folder[] = "/tmp/exactmap-io-XXXXXX";
    assert(mkdtemp(folder) != NULL);
    test_json_values();
    test_json_refusals();
    test_safetensors_refusals();
    test_safetensors_mutations();
    test_safetensors_round_trip(folder);
    test_half_floats();
    test_folders(folder);
    test_samples();
    em_folder_discard(folder);
    puts("ok");
    return 0;
}
