// The router's logits, scores and choices against the rules of the model, ties and what is no number included.
#include "check.h"
#include "sigma_kernels.h"

namespace {

// The rules, one expert after the other (docs/model-file.md; the CPU's Routing).
void choose(std::vector<double> scores, const float *bias, int choices, bool normalizes, double scale, std::vector<int> &chosen,
            std::vector<double> &weights) {
    std::vector<bool> taken(scores.size());
    double sum = 0;
    for (int c = 0; c < choices; c++) {
        int best = -1;
        float best_score = 0;
        for (size_t e = 0; e < scores.size(); e++) {
            if (taken[e]) continue;
            const float score = (float)scores[e] + (bias ? bias[e] : 0.0f);
            if (best < 0 || score > best_score || (isnan(best_score) && !isnan(score))) {
                best = (int)e;
                best_score = score;
            }
        }
        taken[best] = true;
        chosen.push_back(best);
        weights.push_back(scores[best]);
        sum += scores[best];
    }
    for (int c = 0; c < choices; c++) weights[weights.size() - choices + c] *= normalizes ? scale / (sum + 1e-20) : scale;
}

std::vector<double> scores_of(const float *logits, int experts, bool softmax) {
    std::vector<double> scores(experts);
    double most = -INFINITY, sum = 0;
    for (int e = 0; e < experts; e++) most = logits[e] > most ? logits[e] : most;
    for (int e = 0; e < experts; e++) sum += softmax ? exp(logits[e] - most) : 0;
    for (int e = 0; e < experts; e++) scores[e] = softmax ? exp(logits[e] - most) / sum : 1 / (1 + exp(-(double)logits[e]));
    return scores;
}

void check_choice(const sigma_cuda_choose &p, const Memory<float> &logits, const float *bias, const Memory<int> &chosen, const Memory<float> &weights,
                  const char *what) {
    for (int row = 0; row < p.rows; row++) {
        std::vector<int> expected;
        std::vector<double> exact;
        choose(scores_of(&logits[(size_t)row * p.experts], p.experts, p.softmax), bias, p.choices, p.normalizes, p.scale, expected, exact);
        for (int c = 0; c < p.choices; c++) {
            expect(chosen[row * p.choices + c] == expected[c], what, row, c, chosen[row * p.choices + c]);
            expect_near(weights[row * p.choices + c], exact[c], 20 * UNIT_ROUNDING * fabs(exact[c]) + 1e-37, what, row, c);
        }
    }
}

}  // namespace

void check_routing() {
    begin("choices");
    uint64_t seed = 1;
    for (int experts : {1, 8, 32, 33, 96, 128, 1024})
        for (int choices : {1, 2, 8, 64})
            for (int variant = 0; variant < 4; variant++) {
                if (choices > experts) continue;
                const int rows = 5;
                // Logits in steps, so that margins are far above rounding; equal ones are frequent.
                Memory<float> logits((size_t)rows * experts);
                for (size_t i = 0; i < logits.count; i++) logits[i] = (float)(int)(next_random(seed) % 41) * 0.25f - 5;
                Memory<float> bias((size_t)experts);
                for (int e = 0; e < experts; e++) bias[e] = (float)(int)(next_random(seed) % 5) * 0.125f;
                Memory<int> chosen((size_t)rows * choices);
                Memory<float> weights((size_t)rows * choices);
                sigma_cuda_choose p = {logits.address(), variant & 1 ? bias.address() : 0, chosen.address(), weights.address(), rows, experts,
                                       choices, variant >> 1, variant != 1, 2.5f};
                LAUNCH(choose, p);
                // With a bias, scores that differ by less than rounding could be ordered either way: only sigmoid's steps are wide enough.
                if (variant == 3) {
                    for (int row = 0; row < rows; row++)
                        for (int c = 0; c < choices; c++) expect(chosen[row * choices + c] >= 0 && chosen[row * choices + c] < experts, "expert", row, c);
                    continue;
                }
                check_choice(p, logits, variant & 1 ? bias.base : nullptr, chosen, weights, "choice");
            }
    {
        // Equal, infinite, saturated, and no numbers.
        const std::vector<float> rows = {1, 1, 1, 1, NAN, 3, NAN, 3, 50, 40, 30, 60, NAN, NAN, NAN, NAN, -INFINITY, 2, INFINITY, 100};
        const Memory<float> logits(rows);
        Memory<int> chosen(10);
        Memory<float> weights(10);
        sigma_cuda_choose p = {logits.address(), 0, chosen.address(), weights.address(), 5, 4, 2, 0, 0, 1};
        LAUNCH(choose, p);
        const int expected[10] = {0, 1, 1, 3, 0, 1, 0, 1, 2, 3};
        for (int i = 0; i < 10; i++) expect(chosen[i] == expected[i], "special choice", i, chosen[i], expected[i]);
        expect(weights[4] == 1 && weights[8] == 1, "saturated weight");
        expect(isnan(weights[6]), "weight of what is no number");
    }

    begin("route");
    for (int type : {SIGMA_F32, SIGMA_BF16, SIGMA_F16})
        for (int columns : {1536, 52}) {
            const int experts = 10 + columns % 7, rows = 3, choices = 2;
            const Matrix router(type, experts, columns, seed);
            const Memory<unsigned char> bytes(router.bytes);
            const Memory<float> residual(uneven_row((size_t)rows * columns, seed + 1, 3)), norm(uneven_row((size_t)columns, seed + 2, 2));
            const sigma_cuda_input input = {residual.address(), norm.address(), SIGMA_CUDA_NORMED, columns, 1e-6f, 0};
            Memory<float> logits((size_t)rows * experts), weights((size_t)rows * choices), others((size_t)rows * experts), other_weights((size_t)rows * choices);
            Memory<int> chosen((size_t)rows * choices), counter(std::vector<int>{0}), other_chosen((size_t)rows * choices);
            sigma_cuda_route p = {input, router.at(bytes.address()),
                                  {logits.address(), 0, chosen.address(), weights.address(), rows, experts, choices, 0, 1, 1},
                                  counter.address()};
            LAUNCH(route, p);
            LAUNCH(route, p);  // the counter is as it was
            expect(counter[0] == 0, "counter");
            check_choice(p.choose, logits, nullptr, chosen, weights, "route");
            // The way of many rows: the same bits.
            Memory<float> normed((size_t)rows * columns);
            sigma_cuda_prepare prepare = {input, normed.address(), 0, rows, 0};
            LAUNCH(prepare, prepare);
            sigma_cuda_multiply m = {};
            m.input = {normed.address(), 0, SIGMA_CUDA_PREPARED, columns, 0, 0};
            m.products[0] = {router.at(bytes.address()), 0, others.address(), experts, 0};
            m.count = 1;
            m.rows = rows;
            LAUNCH(multiply, m);
            sigma_cuda_choose c = p.choose;
            c.logits = others.address();
            c.chosen = other_chosen.address();
            c.weights = other_weights.address();
            LAUNCH(choose, c);
            for (size_t i = 0; i < logits.count; i++) expect(same_bits(logits[i], others[i]), "logit", (long)i, type);
            for (size_t i = 0; i < chosen.count; i++) expect(chosen[i] == other_chosen[i] && same_bits(weights[i], other_weights[i]), "choice", (long)i);
            for (int row = 0; row < rows; row++)
                for (int e = 0; e < experts; e++) {
                    double sum = 0, size = 0;
                    for (int i = 0; i < columns; i++) {
                        sum += (double)router.values[(size_t)e * columns + i] * normed[(size_t)row * columns + i];
                        size += fabs((double)router.values[(size_t)e * columns + i] * normed[(size_t)row * columns + i]);
                    }
                    expect_near(logits[(size_t)row * experts + e], sum, (columns / 32 + 16) * UNIT_ROUNDING * size, "logit", row, e);
                }
            seed += 3;
        }
}
