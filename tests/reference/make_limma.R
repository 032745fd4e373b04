# limma and edgeR on small simulated data, to limma.json: Rscript make_limma.R (in this folder)
library(limma)
library(edgeR)
library(jsonlite)
set.seed(20261127)

# 80 genes, 10 samples: two groups of five, a covariate; variances of a scaled inverse chi-square with 8 df,
# larger for genes of low expression, 4 hypervariable genes; some values missing
genes <- 80; n <- 10
group <- rep(0:1, each = 5); x <- round(rnorm(n), 3)
mean <- runif(genes, 4, 12)
sigma2 <- 0.05 * 8 / rchisq(genes, 8) * exp(-0.15 * (mean - 8))
sigma2[1:4] <- sigma2[1:4] * 60
effect <- c(rep(0, 40), rnorm(40, 0, 0.3))
y <- round(mean + outer(effect, group) + 0.1 * outer(rep(1, genes), x) + matrix(rnorm(genes * n), genes) * sqrt(sigma2), 5)
holes <- y
holes[cbind(5:40, sample(n, 36, replace = TRUE))] <- NA
design <- cbind(Intercept = 1, group = group, x = x)
contrasts <- cbind(group = c(0, 1, 0), both = c(0, 1, -2))

moderated <- function(y, trend, robust) {
  fit <- lmFit(y, design)
  e <- eBayes(fit, trend = trend, robust = robust)
  # with missing values contrasts.fit is an approximation: coefficients alone
  if (anyNA(y)) contrasts <- contrasts[, 1, drop = FALSE]
  c <- eBayes(contrasts.fit(fit, contrasts), trend = trend, robust = robust)
  joint <- eBayes(contrasts.fit(fit, cbind(c(0, 1, 0), c(0, 0, 1))), trend = trend, robust = robust)
  t <- treat(fit, lfc = 0.2, trend = trend, robust = robust)
  list(coefficients = unname(e$coefficients), s2 = e$sigma^2, df = e$df.residual, average = unname(e$Amean), df_prior = e$df.prior, var_prior = e$s2.prior, s2_post = unname(e$s2.post), df_total = unname(e$df.total), t = unname(e$t),
       p = unname(e$p.value), contrast_t = unname(c$t), contrast_p = unname(c$p.value),
       F = if (!anyNA(y)) unname(joint$F), F_p = if (!anyNA(y)) unname(joint$F.p.value), treat_t = unname(t$t), treat_p = unname(t$p.value))
}

arrays <- list()
for (missing in c(FALSE, TRUE)) for (trend in c(FALSE, TRUE)) for (robust in c(FALSE, TRUE)) {
  words <- c("missing", "trend", "robust")[c(missing, trend, robust)]
  arrays[[if (length(words)) paste(words, collapse = "+") else "plain"]] <- moderated(if (missing) holes else y, trend, robust)
}
# pairs with large differences between them: a mixed model's contrast within pairs is that with an intercept a pair
pair <- rep(1:5, 2)
paired <- round(y + matrix(rnorm(genes * 5, 0, 4), genes)[, pair], 5)
w <- eBayes(lmFit(paired, cbind(model.matrix(~ factor(pair)), group)))
within <- list(t = unname(w$t[, "group"]), p = unname(w$p.value[, "group"]), df_prior = w$df.prior, var_prior = w$s2.prior,
               s2 = w$sigma^2, df_total = unname(w$df.total))
# equal variances: infinite prior df; few genes; zero variances
prior <- function(s2, df, covariate = NULL, robust = FALSE) {
  f <- squeezeVar(s2, df, covariate = covariate, robust = robust)
  list(s2 = s2, df = df, covariate = covariate, robust = robust, df_prior = f$df.prior, var_prior = f$var.prior, s2_post = f$var.post)
}
s2 <- 0.3 * rchisq(50, 6) / 6
own <- runif(50, 3, 20)
priors <- list(equal = prior(rep(c(0.9, 1, 1.1), 10), 6), chisq = prior(s2, 6), few = prior(s2[1:3], 6),
               four = prior(s2[1:4], 6, covariate = c(1, 3, 2, 5)),
               unequal = prior(s2, own), unequal_trend = prior(s2, own, covariate = seq(2, 9, length.out = 50)),
               unequal_robust = prior(c(s2[1:48], 30, 8), own, robust = TRUE),
               trend_robust = prior(c(s2[1:48], 30, 8), 6, covariate = seq(2, 9, length.out = 50), robust = TRUE),
               chance_robust = prior(c(s2[1:49], 40), 6, robust = TRUE), zeros_robust = prior(c(0, 0, s2[3:49], 9), own, robust = TRUE),
               nine_robust = prior(s2[1:9], own[1:9], robust = TRUE), ten_robust = prior(c(s2[1:9], 6), own[1:10], robust = TRUE),
               equal_robust = prior(rep(1, 20), own[1:20], robust = TRUE), zeros = prior(c(0, 0, s2[3:50]), own),
               ties = prior(s2, own, covariate = rep(c(1, 2, 4), length.out = 50)))

# counts: 100 genes, 8 samples of 4 donors before and after; composition and depth differ; zeros
donor <- rep(1:4, each = 2); after <- rep(0:1, 4)
mu <- exp(runif(100, 0, 7)); depth <- c(1, 1.5, 0.7, 2, 1.1, 0.9, 0.4, 1.3)
rate <- outer(mu, depth) * exp(outer(rnorm(100, 0, 0.4) * rep(0:1, c(60, 40)), after))
rate[1:10, after == 1] <- rate[1:10, after == 1] * 5
counts <- matrix(rnbinom(length(rate), mu = rate * exp(matrix(rnorm(100 * 4, 0, 0.25), 100)[, donor]), size = 8), 100)
counts[100, ] <- 0
d <- DGEList(counts)
tmm <- calcNormFactors(d)
tmm3 <- calcNormFactors(d, refColumn = 3, logratioTrim = 0.2, sumTrim = 0.1)
upper <- calcNormFactors(d, method = "upperquartile")
own_design <- cbind(1, after)
v <- voom(tmm, own_design)
plain <- voom(counts, own_design, span = 0.3)
block <- duplicateCorrelation(v$E[1:99, ], own_design, block = donor)
weighted <- duplicateCorrelation(v[1:99, ], own_design, block = donor)
gls <- eBayes(lmFit(v$E[1:99, ], own_design, block = donor, correlation = block$consensus.correlation))
wls <- eBayes(lmFit(v, own_design))
lows <- list(list(x = c(1, 1, 2, 3, 3, 3, 5, 8, 9, 9.005, 9.01, 12), y = c(2, 3, 1, 5, 4, 4.5, 7, 6, 9, 8, 12, 10)),
             list(x = round(runif(120)^2, 3), y = round(rnorm(120), 3)))
lows <- lapply(lows, function(l) c(l, list(half = lowess(l$x, l$y, f = 0.5, iter = 3)$y, order = order(l$x),
  wide = lowess(l$x, l$y, f = 0.4, iter = 4)$y, none = lowess(l$x, l$y, f = 0.2, iter = 0, delta = 0)$y)))

# weights of every value beside missing ones
w <- matrix(round(exp(rnorm(genes * n)), 5), genes)
wf <- lmFit(holes, design, weights = w)
we <- eBayes(wf)
weighted_fit <- list(w = w, coefficients = unname(wf$coefficients), sigma = wf$sigma, unscaled = unname(wf$stdev.unscaled), df = wf$df.residual,
                     df_prior = we$df.prior, var_prior = we$s2.prior, t = unname(we$t), p = unname(we$p.value))

out <- list(versions = list(R = R.version.string, limma = as.character(packageVersion("limma")), edgeR = as.character(packageVersion("edgeR"))),
  y = y, holes = holes, group = group, x = x, arrays = arrays, priors = priors,
  counts = counts, donor = donor, after = after, tmm = tmm$samples$norm.factors, tmm3 = tmm3$samples$norm.factors,
  upper = upper$samples$norm.factors,
  voom = list(E = unname(v$E), weights = unname(v$weights)), voom_plain = list(E = unname(plain$E), weights = unname(plain$weights)),
  wls = list(t = unname(wls$t), p = unname(wls$p.value), df_prior = wls$df.prior, var_prior = wls$s2.prior),
  block = list(consensus = block$consensus.correlation, genes = block$atanh.correlations), weighted = list(consensus = weighted$consensus.correlation, genes = weighted$atanh.correlations),
  gls = list(beta = unname(gls$coefficients), t = unname(gls$t), s2 = gls$sigma^2, df_prior = gls$df.prior, var_prior = gls$s2.prior, df = gls$df.residual),
  weighted_fit = weighted_fit,
  pair = pair, paired = paired, within = within,
  lowess = lows)
write(toJSON(out, digits = I(11), na = "null", auto_unbox = TRUE), "limma.json")
