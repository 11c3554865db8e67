/* Contributions of the features to the scores of tree ensembles. */
#include "forest.h"

/* A split, with the shares of the training rows that pass the splits by its feature on the path to each child. */
typedef struct {
    double shares[2], inverse_shares[2], previous_share;
    int32_t node, left; /* positions in the tree */
    int32_t previous;   /* the closest node on the path to which a split by the same feature leads, or the root */
    int32_t group;      /* of the feature; contributions are summed by group */
} Fork;

enum { LANES = 4 };
typedef double Lanes __attribute__((vector_size(32), aligned(8)));

/* Write the forks of all trees, each tree from the top down, and for each tree its number of forks and the largest number of
   features on a path. `covers` holds the numbers of training rows of the leaves; those of the splits are added. `parents`, `used`
   and `shares` are buffers for one number per node. */
void podium_forks(const Forest *forest, const int32_t *ends, double *covers, const int32_t *groups, Fork *forks, int32_t *counts,
                  int32_t *path_features, int32_t *parents, int32_t *used, double *shares) {
    for (int tree = 0; tree < forest->trees; tree++) {
        int32_t root = forest->roots[tree], size = ends[tree] - root;
        const Node *nodes = forest->nodes + root;
        double *cover = covers + root;
        for (int32_t node = size - 1; node >= 0; node--)
            if (nodes[node].left != root + node) cover[node] = cover[nodes[node].left - root] + cover[nodes[node].left - root + 1];
        shares[0] = 1.0;
        parents[0] = used[0] = counts[tree] = path_features[tree] = 0;
        for (int32_t node = 0; node < size; node++) {
            int32_t left = nodes[node].left - root, previous = node;
            if (left == node) continue;
            while (previous && nodes[parents[previous]].feature != nodes[node].feature) previous = parents[previous];
            Fork *fork = forks++;
            *fork = (Fork){.node = node, .left = left, .previous = previous, .previous_share = shares[previous], .group = groups[nodes[node].feature]};
            for (int side = 0; side < 2; side++) {
                double share = shares[previous] * (cover[left + side] / cover[node]);
                share = share > 1e-300 ? share : 1e-300; /* a child without training rows */
                fork->shares[side] = shares[left + side] = share;
                fork->inverse_shares[side] = 1.0 / share;
                parents[left + side] = node;
                used[left + side] = used[node] + !previous;
            }
            counts[tree]++;
            if (used[left] > path_features[tree]) path_features[tree] = used[left];
        }
    }
}

/* Add the Shapley values of each group to `output`.

   For one leaf and one row, let z be the share of a feature on the path, and o whether the row follows its splits (0 or 1).
   The contribution of feature i is value * (o_i - z_i) * integral from 0 to 1 of the product over all other features of
   (t o + (1 - t) z), a polynomial in t that Gauss-Legendre quadrature integrates exactly, at 4 * size points. The products go
   down the tree; their sums over the leaves come back up. There are no branches that depend on the row or the tree's shape. */
static inline __attribute__((always_inline)) void add_tree(const Forest *forest, const Node *nodes, const Fork *forks, int count,
                                                           const Lanes *points, int size, const double *row, double *output,
                                                           Lanes *products, Lanes *inverses, double *follows, int32_t *rights) {
    const Lanes *weights = points + size, *rest = weights + size, *inverse_rest = rest + size; /* rest: 1 - t */
    follows[0] = 1.0;
    for (int k = 0; k < size; k++) products[k] = weights[k], inverses[k] = (Lanes){1.0, 1.0, 1.0, 1.0};
    for (int i = 0; i < count; i++) {
        const Fork *fork = forks + i;
        const Node *split = nodes + fork->node;
        double value = row[split->feature], follow = follows[fork->previous];
        int right = rights[i] = goes_right(forest, split, forest->is_float32 ? (float)value : value);
        int32_t taken = fork->left + right, other = fork->left + 1 - right;
        follows[taken] = follow;
        follows[other] = 0.0;
        for (int k = 0; k < size; k++) {
            Lanes factor = points[k] * follow + rest[k] * fork->shares[right];
            Lanes product = products[fork->node * size + k] * inverses[fork->previous * size + k];
            products[taken * size + k] = product * factor;
            inverses[taken * size + k] = 1.0 / factor;
            products[other * size + k] = product * (rest[k] * fork->shares[1 - right]);
            inverses[other * size + k] = inverse_rest[k] * fork->inverse_shares[1 - right];
        }
    }
    for (int node = 0; node <= 2 * count; node++) /* those of the splits are replaced below */
        for (int k = 0; k < size; k++) products[node * size + k] *= nodes[node].number;
    for (int i = count - 1; i >= 0; i--) {
        const Fork *fork = forks + i;
        int32_t taken = fork->left + rights[i], other = fork->left + 1 - rights[i];
        double gain = follows[taken] - fork->shares[rights[i]], previous_gain = follows[fork->previous] - fork->previous_share;
        Lanes sum = {0.0, 0.0, 0.0, 0.0};
        for (int k = 0; k < size; k++) {
            Lanes of_taken = products[taken * size + k], of_other = products[other * size + k], both = of_taken + of_other;
            sum += of_taken * inverses[taken * size + k] * gain - of_other * inverse_rest[k];
            sum -= both * inverses[fork->previous * size + k] * previous_gain;
            products[fork->node * size + k] = both;
        }
        output[fork->group] += sum[0] + sum[1] + sum[2] + sum[3];
    }
}

/* Compute the contributions, of shape (n, outputs, groups). `blocks` holds the number of points / 4 by tree, `rules` the points,
   weights, 1 - points and their inverses of the rules with 4, 8, 12 ... points. `work` has room for the largest tree. */
void podium_contributions(const Forest *forest, const Fork *forks, const int32_t *counts, const int32_t *blocks, const double *rules,
                          const double *rows, int64_t n, int64_t groups, double *output, double *work, int64_t work_nodes) {
    for (int tree = 0; tree < forest->trees; forks += counts[tree++]) {
        int size = blocks[tree], count = counts[tree];
        const Lanes *points = (const Lanes *)(rules + 2 * LANES * size * (size - 1));
        const Node *nodes = forest->nodes + forest->roots[tree];
        Lanes *products = (Lanes *)work, *inverses = products + work_nodes * size;
        double *follows = (double *)(inverses + work_nodes * size);
        int32_t *rights = (int32_t *)(follows + work_nodes);
        for (int64_t r = 0; r < n; r++) {
            const double *row = rows + r * forest->features;
            double *result = output + (r * forest->outputs + tree % forest->outputs) * groups;
            if (size == 1) add_tree(forest, nodes, forks, count, points, 1, row, result, products, inverses, follows, rights);
            else if (size == 2) add_tree(forest, nodes, forks, count, points, 2, row, result, products, inverses, follows, rights);
            else add_tree(forest, nodes, forks, count, points, size, row, result, products, inverses, follows, rights);
        }
    }
}
