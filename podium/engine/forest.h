/* Tree ensembles in memory. Python has validated every array: all features, children, leaves and bit sets are in range. */
#include <math.h>
#include <stdint.h>

enum { NUMBER, ZERO_IS_MISSING, CATEGORY };          /* kinds of splits */
enum { IDENTITY, LOGISTIC, SOFTMAX, EXP, SQUARE, LOG1P_EXP }; /* functions of the sums */

/* A split, whose right child follows its left child; or a leaf, which leads to itself: its feature is an extra one, -infinity. */
typedef struct {
    double number; /* threshold, index of the bit set, or that of a leaf */
    int32_t left;
    uint16_t feature;
    uint8_t kind, missing_right; /* missing_right: whether NaN goes right */
} Node;

/* A split for scoring by bit masks: a row that goes right loses the leaves that are 0 in `kept`. */
typedef struct {
    int32_t tree;
    uint32_t kept;
    int32_t missing_right;
} Split;

typedef struct {
    int32_t trees, outputs, features;
    int32_t leaf_outputs; /* 1: the number of a leaf is its value; else its row in leaf_values, which has a value for each output */
    int32_t is_plain;  /* all splits have the kind NUMBER */
    int32_t has_masks; /* plain, and no tree has more than 32 leaves */
    int32_t is_float32, link;
    int32_t divisor; /* of the sums: the number of trees if they are averaged, else 1 */
    double sigmoid;
    const Node *nodes;
    const int32_t *roots, *depths;
    const uint32_t *bits; /* sets of categories: the number of words, then the words */
    const Split *splits;  /* by feature, then by threshold */
    const double *thresholds;
    const int32_t *split_ends;
    const double *leaves; /* by tree, from left to right */
    const int32_t *leaf_starts;
    const double *leaf_values;
} Forest;

static inline int goes_right(const Forest *forest, const Node *node, double value) {
    if (node->kind == CATEGORY) {
        if (!(value > -1.0 && value < 2147483648.0)) return 1;
        uint32_t category = (uint32_t)value;
        const uint32_t *set = forest->bits + (int64_t)node->number;
        return category / 32 >= set[0] || !(set[1 + category / 32] >> category % 32 & 1);
    }
    if (value != value || (node->kind == ZERO_IS_MISSING && fabs(value) <= 1e-35f)) return node->missing_right;
    return !(value <= node->number);
}
