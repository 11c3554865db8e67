/* Scores of tree ensembles. */
#include <string.h>

#include "forest.h"

enum { ROWS = 16, MANY_TREES = 32, TREES = 8 }; /* rows and trees that are walked side by side, so that they wait for memory together */

static inline int plain_goes_right(const Node *node, double value) {
    return (value > node->number) | ((value != value) & node->missing_right); /* without branches, which would be mispredicted */
}

static void apply_link(const Forest *forest, double *scores) {
    int outputs = forest->outputs;
    double largest = scores[0], total = 0.0;
    for (int o = 0; o < outputs; o++) scores[o] /= forest->divisor;
    if (forest->link == SOFTMAX) {
        for (int o = 1; o < outputs; o++) largest = scores[o] > largest ? scores[o] : largest;
        for (int o = 0; o < outputs; o++) total += scores[o] = exp(scores[o] - largest);
    }
    for (int o = 0; o < outputs; o++) {
        double sum = scores[o];
        if (forest->link == LOGISTIC) scores[o] = 1.0 / (1.0 + exp(-forest->sigmoid * sum));
        if (forest->link == SOFTMAX) scores[o] = sum / total;
        if (forest->link == EXP) scores[o] = exp(sum);
        if (forest->link == SQUARE) scores[o] = sum < 0 ? -sum * sum : sum * sum;
        if (forest->link == LOG1P_EXP) scores[o] = log1p(exp(sum));
    }
}

/* Add the values of a tree's leaf; the sum of output o is sums[o * stride]. */
static inline void add_leaf(const Forest *forest, const Node *leaf, int tree, double *sums, int stride) {
    if (forest->leaf_outputs == 1) {
        sums[tree % forest->outputs * stride] += leaf->number;
        return;
    }
    const double *values = forest->leaf_values + (int64_t)leaf->number * forest->outputs;
    for (int o = 0; o < forest->outputs; o++) sums[o * stride] += values[o];
}

/* Walk `lanes` plain trees at a time, from `tree` on; return the first one that is left. */
static inline int walk_plain(const Forest *forest, const double *row, double *scores, int tree, const int lanes) {
    for (; tree + lanes <= forest->trees; tree += lanes) {
        int32_t at[MANY_TREES], depth = 0;
        for (int i = 0; i < lanes; i++) {
            at[i] = forest->roots[tree + i];
            depth = forest->depths[tree + i] > depth ? forest->depths[tree + i] : depth;
        }
        for (int d = 0, moved = 1; moved && d < depth; d++) {
            moved = 0;
            for (int i = 0; i < lanes; i++) {
                const Node *node = forest->nodes + at[i];
                int32_t next = node->left + plain_goes_right(node, row[node->feature]);
                moved |= next ^ at[i];
                at[i] = next;
            }
        }
        for (int i = 0; i < lanes; i++) add_leaf(forest, forest->nodes + at[i], tree + i, scores, 1);
    }
    return tree;
}

/* Score one row. `row` has features + 1 numbers, the last is -infinity; they are rounded in place if the trees use float32. */
void podium_score_row(const Forest *forest, double *row, double *scores) {
    int tree = 0;
    if (forest->is_float32)
        for (int j = 0; j < forest->features; j++) row[j] = (float)row[j];
    for (int o = 0; o < forest->outputs; o++) scores[o] = 0.0;
    if (forest->is_plain) tree = walk_plain(forest, row, scores, walk_plain(forest, row, scores, 0, MANY_TREES), TREES);
    for (; tree < forest->trees; tree++) {
        const Node *node = forest->nodes + forest->roots[tree];
        while (node->feature != forest->features) node = forest->nodes + node->left + goes_right(forest, node, row[node->feature]);
        add_leaf(forest, node, tree, scores, 1);
    }
    apply_link(forest, scores);
}

/* The number of sorted thresholds that are less than a value. */
static int32_t rank_of(double value, const double *thresholds, int32_t count) {
    const double *low = thresholds;
    for (; count > 1; count -= count / 2) low += low[count / 2 - 1] < value ? count / 2 : 0;
    return (int32_t)(low - thresholds) + (count == 1 && *low < value);
}

/* Remove the leaves that each row cannot reach, for the splits of one feature: a row goes right at as many as its rank. */
static void mask_feature(const Split *splits, const double *thresholds, int32_t count, const double *values, uint32_t (*masks)[ROWS]) {
    int32_t ranks[ROWS], largest = 0;
    for (int r = 0; r < ROWS; r++) {
        ranks[r] = values[r] == values[r] ? rank_of(values[r], thresholds, count) : 0;
        largest = ranks[r] > largest ? ranks[r] : largest;
        if (values[r] != values[r])
            for (int32_t s = 0; s < count; s++) masks[splits[s].tree][r] &= splits[s].kept | (uint32_t)splits[s].missing_right - 1;
    }
    for (int32_t s = 0; s < largest; s++) {
        uint32_t *mask = masks[splits[s].tree], kept = splits[s].kept;
        for (int r = 0; r < ROWS; r++) mask[r] &= kept | -(uint32_t)(ranks[r] <= s);
    }
}

static void sum_masked(const Forest *forest, double (*values)[ROWS], uint32_t (*masks)[ROWS], double (*sums)[ROWS]) {
    memset(masks, 0xff, sizeof masks[0] * forest->trees);
    for (int j = 0, start = 0; j < forest->features; start = forest->split_ends[j++])
        mask_feature(forest->splits + start, forest->thresholds + start, forest->split_ends[j] - start, values[j], masks);
    for (int tree = 0; tree < forest->trees; tree++) {
        const double *leaves = forest->leaves + forest->leaf_starts[tree];
        double *sum = sums[tree % forest->outputs];
        for (int r = 0; r < ROWS; r++) sum[r] += leaves[__builtin_ctz(masks[tree][r])];
    }
}

static void sum_walked(const Forest *forest, double (*values)[ROWS], double (*sums)[ROWS], int tree) {
    int32_t at[ROWS];
    for (int r = 0; r < ROWS; r++) at[r] = forest->roots[tree];
    for (int d = 0, moved = 1; moved && d < forest->depths[tree]; d++) {
        moved = 0;
        for (int r = 0; r < ROWS; r++) {
            const Node *node = forest->nodes + at[r];
            double value = values[node->feature][r];
            int right = forest->is_plain ? plain_goes_right(node, value)
                                         : node->feature != forest->features && goes_right(forest, node, value);
            moved |= node->left + right != at[r];
            at[r] = node->left + right;
        }
    }
    for (int r = 0; r < ROWS; r++) add_leaf(forest, forest->nodes + at[r], tree, &sums[0][r], ROWS);
}

/* Score n rows; feature j of row i is rows[i * row_stride + j * feature_stride]. Some blocks of ROWS rows pass through a tree
   before the next one, so that it stays in the cache. `work` has room for ROWS × (blocks × (features + 1 + outputs) + trees) numbers. */
void podium_score_rows(const Forest *forest, const double *rows, int64_t n, int64_t row_stride, int64_t feature_stride,
                       double *scores, void *work, int blocks) {
    int features = forest->features, outputs = forest->outputs;
    double(*values)[ROWS] = work, (*sums)[ROWS] = values + blocks * (features + 1);
    uint32_t(*masks)[ROWS] = (void *)(sums + blocks * outputs);
    for (int64_t start = 0; start < n; start += blocks * ROWS) {
        int count = n - start < blocks * ROWS ? (int)(n - start) : blocks * ROWS, used = (count + ROWS - 1) / ROWS;
        for (int b = 0; b < used; b++) {
            double(*block)[ROWS] = values + b * (features + 1);
            for (int j = 0; j < features; j++)
                for (int r = 0; r < ROWS; r++) { /* the last block repeats the last row */
                    int i = b * ROWS + r < count ? b * ROWS + r : count - 1;
                    double value = rows[(start + i) * row_stride + j * feature_stride];
                    block[j][r] = forest->is_float32 ? (float)value : value;
                }
            for (int r = 0; r < ROWS; r++) block[features][r] = -INFINITY;
        }
        memset(sums, 0, sizeof sums[0] * outputs * used);
        if (forest->has_masks)
            for (int b = 0; b < used; b++) sum_masked(forest, values + b * (features + 1), masks, sums + b * outputs);
        else
            for (int tree = 0; tree < forest->trees; tree++)
                for (int b = 0; b < used; b++) sum_walked(forest, values + b * (features + 1), sums + b * outputs, tree);
        for (int i = 0; i < count; i++) {
            double *row_scores = scores + (start + i) * outputs;
            for (int o = 0; o < outputs; o++) row_scores[o] = sums[i / ROWS * outputs + o][i % ROWS];
            apply_link(forest, row_scores);
        }
    }
}
